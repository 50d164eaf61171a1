"""Write a backbone as an ONNX file: the command ``medic-mm export-onnx``."""

from medic_mm.cli.main import call

if __name__ == '__main__':
    call('export-onnx')

"""One HTML page that tells of a run; see :func:`medic_mm.apis.report.make_report`."""

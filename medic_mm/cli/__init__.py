"""Commands: one file each, arguments in, one function of the package called."""

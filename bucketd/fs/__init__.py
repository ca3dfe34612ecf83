"""System calls on files and directories: leaf modules, each imported by its name."""

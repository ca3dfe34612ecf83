"""The table of commands: names, options, help; in modules of which a start loads one."""

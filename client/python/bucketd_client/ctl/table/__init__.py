"""The table of commands: names, options, help; in two modules, of which a start loads one."""

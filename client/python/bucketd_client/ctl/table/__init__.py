"""The commands as a table: names, options, help. In two parts, so that a start loads one."""

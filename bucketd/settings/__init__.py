"""Every setting, read once from flags, environment, TOML files and defaults, then frozen."""

"""The embedded engine: a commit journal, and one JSON file for each bucket."""

"""The HTTP face: who asks (access), for what (routes), in which words (wire)."""

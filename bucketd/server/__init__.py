"""The socket and its connections: HTTP/1.1 in and out, one request at a time."""

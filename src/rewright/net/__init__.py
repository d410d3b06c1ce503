"""HTTP: a client with retries and deadlines, a server, and request batching."""

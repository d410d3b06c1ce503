"""HTTP: one client with retries and deadlines, one server, batching."""

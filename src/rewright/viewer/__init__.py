"""The viewer of runs: an index beside the JSONL files, a server on loopback, and the page that it serves."""

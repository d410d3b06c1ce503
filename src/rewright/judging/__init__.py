"""Is an answer right: math, question answering, FTRL's Solve metrics, format."""

"""What the benchmarks share: scores beside success, floors and ceilings, the suites of the papers."""

"""ComplexFuncBench: travel tasks with several dependent calls, replayed from recorded responses."""

"""`make bench`: what Hearth costs, against a floor of its own and what stands beside it (docs/benchmarks.md)."""

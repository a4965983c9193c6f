"""The bench of this repository: every figure of docs/performance.md, taken in one run; see bench/README.md."""

"""What the benchmarks share: a client, processes and their accounts, statistics, tables."""

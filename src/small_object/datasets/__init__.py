"""Detection data sets: the model of one, its checks, repairs, statistics, conversions and splits."""

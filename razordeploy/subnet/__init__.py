"""Fixed and elastic subnets: channel tracing, mutables, slicing, estimation."""

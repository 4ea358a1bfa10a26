"""What a search may choose: operations, edges, numbers and channels."""

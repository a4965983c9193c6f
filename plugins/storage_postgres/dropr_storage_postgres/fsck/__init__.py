"""Looking for what contradicts itself in a store, and putting it right."""

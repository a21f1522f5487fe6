"""How the topology of a network changes: masks, budgets, rules and scores. Knows no RL."""

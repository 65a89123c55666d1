"""Memory: the limits a runtime is given, the plan that spends a budget, and what holds a runtime to them."""

"""The contract with clients, generated from proto/ by `make proto`: do not edit."""

"""Complete tasks on real data, to learn from and to try Proponent with."""

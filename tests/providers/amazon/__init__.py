"""The Amazon provider, against a simulated account over HTTP and against recorded answers."""

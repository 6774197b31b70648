"""The other side: real servers that tests talk to over real sockets, started as processes of their own."""

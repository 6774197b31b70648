"""The supervisor: starts, watches and replaces workers. It never imports a runner, a flow, a provider or an SDK."""

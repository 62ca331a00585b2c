"""The offline commands, one file each; `service.cli` puts them together with `serve`."""

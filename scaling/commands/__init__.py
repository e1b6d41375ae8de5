"""What each verb of the command line takes and does; `scaling.cli` lists them."""

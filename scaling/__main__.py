"""`python -m scaling <verb>`."""

from scaling.cli import main

main()

"""The evidence: experiments that anyone can run again. Not installed with the package."""

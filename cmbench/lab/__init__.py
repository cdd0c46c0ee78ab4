"""One claim of the theory a file: what it says, how it is measured on a problem with a closed form, what came out."""

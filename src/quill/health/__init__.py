"""Whether the parts of the house answer. Needs no login and tells no more than which part is out."""

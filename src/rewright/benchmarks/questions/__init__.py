"""Question sets with answers: mathematics and question answering."""

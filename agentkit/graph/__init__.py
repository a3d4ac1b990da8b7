"""What is to be done: the job graph, as a document that can be priced, signed and resumed."""

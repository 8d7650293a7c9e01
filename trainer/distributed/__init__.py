"""The processes of a run: how they start, meet, and share the work.

`launch` reads who this process is, `rendezvous` makes the ranks of one start meet, `mesh` is the world that they form,
`parallelize` lays a model over it, `collectives` does on all ranks or none, `signals` ends a run.
"""

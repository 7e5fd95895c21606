"""The networks of the NTIRE 2023 Real-Time 4K Super-Resolution report.

One file per method, each holding its network and a `SPEC`; `models.registry` finds them. Networks are plain
`torch.nn.Module`s in their training form; `models.reparam.reparameterise` gives the deployed form.
"""

"""`dstrl report`: one page of HTML that shows all runs of some results, without the network."""

"""Networks of a population: `network` is one role of all members, the engines are behind it."""

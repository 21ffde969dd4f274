"""From local work to the next epoch: contribution, round, certificate, outer step."""

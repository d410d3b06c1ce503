"""HotpotQA: multi-hop questions over Wikipedia."""

"""2WikiMultihopQA: multi-hop questions over Wikipedia and Wikidata."""

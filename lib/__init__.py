"""What mix of monolingual and cross-lingual batches is best for multilingual retrieval?"""

__version__ = "0.1.0"

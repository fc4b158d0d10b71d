"""Call lists: files read and imported, contacts looked through, what a launch would find; REST and command line."""

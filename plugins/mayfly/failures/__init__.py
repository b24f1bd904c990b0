"""Why an attempt ended badly, in words and with advice. Pure, stdlib only: it runs on clusters, too."""

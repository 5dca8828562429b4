"""One folder for each quantity that surrogates predict; :mod:`qcsurrogate.registry` lists them."""

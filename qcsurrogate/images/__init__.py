"""What the autoencoder of molecules teaches, on images: an embedding that no rotation changes, and an angle.

``digits.npz`` holds the 1,797 images of handwritten digits, 8 x 8 pixels of 0 to 16, that come with
scikit-learn: the test set of E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits", UCI
Machine Learning Repository (1998), doi 10.24432/C50P49, published under CC BY 4.0; the pixels are unchanged.
"""

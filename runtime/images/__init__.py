"""What an image is: files and arrays in, pixels as the network takes them out."""

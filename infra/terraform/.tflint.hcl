# The rules that are compiled into tflint, all of them. The AWS rules are a plugin of their own: README.md says what
# stands in for it.
plugin "terraform" {
  enabled = true
  preset  = "all"
}

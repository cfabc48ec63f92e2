# shellcheck shell=bash disable=SC2154 # the names come from lib.sh
# The network namespace in which everything listens and dials. It has one bridge with the node's address and no way out:
# a packet to a Service's address can never leave the machine, and two clusters can use the same addresses.

network_up() {
  local file=/run/netns/$netns
  # A crash between making the file and mounting the namespace over it leaves an empty file.
  [ ! -e "$file" ] || [ "$(stat -f -c %T "$file")" = nsfs ] || rm -f "$file"
  [ -e "$file" ] || ip netns add "$netns"
  ip -n "$netns" link set lo up
  ip -n "$netns" link show node0 >/dev/null 2>&1 || ip -n "$netns" link add node0 type bridge
  ip -n "$netns" address replace "$node_ip/24" dev node0
  ip -n "$netns" link set node0 up
  # Service addresses are translated on the way out, and so need a route that leads somewhere.
  ip -n "$netns" route replace default dev node0
  inside sh -c 'echo 1 >/proc/sys/net/ipv4/ip_forward'
}

network_down() {
  local file=/run/netns/$netns
  [ -e "$file" ] || return 0
  ip netns delete "$netns" 2>/dev/null || rm -f "$file"
}

"""Behind ``mmattn infer``: what is asked, what is done already, one item after the other, a page over all."""
